"""What every test folder shares: the fixtures of services.py, `s3`, `toxic_s3` and `faulty_s3`, and the record of faults."""

pytest_plugins = ["services", "fault_record"]
