"""What holds the workers: a Spot Fleet, an Auto Scaling group, one EC2 instance, or processes of this machine."""
