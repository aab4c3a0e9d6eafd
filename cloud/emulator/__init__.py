"""An Aliyun VPC on one machine: signed API, metadata service and a virtual router. Never imported by nexthopd."""
