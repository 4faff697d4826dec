"""What a Python program calls: holes as tunnels and streams of asyncio."""
