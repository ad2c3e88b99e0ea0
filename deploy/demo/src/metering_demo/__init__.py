"""The main job, run and counted on a running stack."""
