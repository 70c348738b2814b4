"""The main job: a tied autoencoder of real photographs beside an untied one. `job.run` is where to start reading."""
