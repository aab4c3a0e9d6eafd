"""The kernel's side: routes, firewall, sysctls. In the daemon, the only importer of pyroute2 and iptc."""
