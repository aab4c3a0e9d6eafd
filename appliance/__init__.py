"""Everything that happens on this machine: intent, kernel, and the tunnel (`appliance.tunnel`)."""
