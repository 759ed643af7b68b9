"""What a cluster lacks for an R1Deployment, before anything is applied."""
