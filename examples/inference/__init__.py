"""A small model server: characters from a recurrent network, one request at a time."""
