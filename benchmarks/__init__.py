"""Programs that measure the library and write the tables of the documentation. They are no part of the package."""
