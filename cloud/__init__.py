"""The VPC's route table, as a cloud offers it. Imports nothing else of ours."""
