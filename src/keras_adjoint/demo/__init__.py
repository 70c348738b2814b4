"""The demo: a tied autoencoder of photographs beside an untied one. It begins in `job.run`."""
