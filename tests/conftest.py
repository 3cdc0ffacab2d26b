"""What every test folder shares: the fixtures of services.py, `s3`, `toxic_s3` and `faulty_s3`."""

pytest_plugins = ["services"]
