"""What people, programs and service managers are told."""
