"""`python -m r1_engine` runs the stand-in."""

import runpy

runpy.run_module("tests.standin", run_name="__main__", alter_sys=True)
