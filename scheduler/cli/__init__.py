"""What people type: click commands, one file per group. It decides nothing that the services below do not."""
