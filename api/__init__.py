"""How people and programs reach the appliance: REST over a Unix socket, and the command line."""
