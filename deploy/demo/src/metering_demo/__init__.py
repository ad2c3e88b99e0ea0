"""The main job, shown and counted on the running stack."""
