"""What `nexthop` can be told, one module for each subject; `api.cli` puts them together."""
