"""Image servers behind the `Engine` port: a task becomes a request, an answer becomes pictures; no queue, no AWS."""
