"""How ends are told to others: a topic of SNS, webhooks. It knows neither records nor queues."""
