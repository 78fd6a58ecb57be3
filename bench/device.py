"""Measure what a device can do, on one engine, with graphs of a few nodes.

    python -m bench.device --runner=ort --name=workstation

Writes a profile: rates of matrix products and convolutions, bandwidth, the cost of launching a
node. `bench.floor` and `bench.estimate` read it. Takes about half a minute; leave the machine
alone meanwhile. Of another machine from this one, by OpenSSH (`python -m bench --help` tells how):

    python -m bench.device --runner=ort-cuda --name=orin --device=ssh://USER@HOST[:PORT][/DIR]

--fingerprint measures nothing: it prints as JSON what machine it is and how it is set. Latencies
of machines with equal ones can be compared.
"""

from __future__ import annotations

import json
import sys

from bench.edge import device, elsewhere, files, flags, machine
from bench.edge.entry import ends, tell
from bench.edge.errors import BenchError


@ends("Interrupted. No profile was written.")
def main(arguments: list[str]) -> int:
    parser = flags.parser("bench.device", __doc__)
    add = parser.add_argument
    add("--runner", choices=device.PROVIDERS, default="ort", help="default: ort")
    add("--name", help="what to call this device")
    add("--out", type=flags.file, help=f"default: {device.PROFILE}; a fingerprint is only printed")
    add("--fingerprint", action="store_true", help="say what machine it is, and measure nothing")
    elsewhere.add_flags(parser)
    options = parser.parse_args(arguments)
    if bool(options.name) == options.fingerprint:
        raise BenchError("Give --name=NAME for a profile, or --fingerprint: one of them.")
    if not options.fingerprint:
        options.out = options.out or device.PROFILE
    if options.device:
        return elsewhere.run(
            elsewhere.Wanted(
                *("bench.device", "measurement", [options.runner]),
                writes={"out": options.out} if options.out else {},
            ),
            options,
        )
    if options.fingerprint:
        told = json.dumps(machine.fingerprint(), indent=1)
        print(told)
        if options.out:
            files.write(options.out, told + "\n")
        return 0
    profile = device.measure(options.runner, options.name, say=tell)
    device.write(options.out, profile)
    for kind, rate in profile["matrix_gflops"].items():
        print(f"matrix products, {kind:6} {rate:9.1f} GFLOP/s")
    print(f"convolution, 1x1        {profile['convolution_gflops']:9.1f} GFLOP/s")
    print(f"convolution, depthwise  {profile['depthwise_gflops']:9.1f} GFLOP/s")
    print(f"bandwidth, memory       {profile['bandwidth_gbs']:9.1f} GB/s")
    print(f"bandwidth, cache        {profile['cache_gbs']:9.1f} GB/s")
    print(f"launch of a node        {profile['launch_us']:9.2f} us")
    print(f"spread of the machine   {100 * profile['spread']:9.1f} %")
    print(f"Profile: {options.out}")
    print(f"Next: python -m bench.floor ARTIFACT --device={options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
