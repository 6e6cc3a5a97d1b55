"""The labeling site: the labelers' page, the lead's pages, their JSON routes, sessions and the server."""
