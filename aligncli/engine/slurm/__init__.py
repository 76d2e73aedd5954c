"""Trainings on a Slurm cluster: what is submitted, waits, is collected and goes back into the queue."""
