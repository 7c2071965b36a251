"""The routes of the REST API, each group in a module with a `router`. `web.app` puts them below /api/v1."""
