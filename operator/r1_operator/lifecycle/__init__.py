"""What should happen next to the gangs of one R1Deployment. Pure: values in, values out, `now` is an argument."""
