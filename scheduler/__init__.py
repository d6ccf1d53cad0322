"""A worker that turns SQS messages into Stable Diffusion images in S3 and records in DynamoDB."""
