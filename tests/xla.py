"""XLA's flags in the tests: so many CPU devices, and programs that compile quickly rather than run quickly.

Compiling is most of the time of the tests. Every process of a test takes the same flags, since a program gives other
last bits when it is compiled in another way.
"""

QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def flags(devices: int) -> str:
    """The value of XLA_FLAGS."""
    return f"--xla_force_host_platform_device_count={devices} {QUICK}"
