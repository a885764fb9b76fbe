"""What answers over a network: the HTTP server and the page that teaches; nothing here is loaded unasked."""
