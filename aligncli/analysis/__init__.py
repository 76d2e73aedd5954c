"""What looks at models and results: complexity, pictures, curves."""
