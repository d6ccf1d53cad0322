"""Where results are kept: pictures in S3, records in DynamoDB."""
