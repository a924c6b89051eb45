"""What tests are built from: a harness around a real server, a real worker and a scripted model."""
