"""The way to AWS: clients, what their errors mean, and the resources that the product needs there."""
