"""Measure what a device can do, on one engine, with graphs of a few nodes.

    python -m bench.device --runner=ort --name=workstation

Writes a profile: rates of matrix products and convolutions, bandwidth, the cost of launching a
node. `bench.floor` and `bench.estimate` read it. Takes about half a minute; leave the machine
alone meanwhile. Of another machine from this one, by OpenSSH (`python -m bench --help` tells how):

    python -m bench.device --runner=ort-cuda --name=orin --device=ssh://USER@HOST[:PORT][/DIR]
"""

from __future__ import annotations

import functools
import sys

from bench.edge import device, elsewhere, flags
from bench.edge.entry import ends


@ends("Interrupted. No profile was written.")
def main(arguments: list[str]) -> int:
    parser = flags.parser("bench.device", __doc__)
    add = parser.add_argument
    add("--runner", choices=device.PROVIDERS, default="ort", help="default: ort")
    add("--name", required=True, help="what to call this device")
    add("--out", type=flags.file, default=device.PROFILE, help=f"default: {device.PROFILE}")
    elsewhere.add_flags(parser)
    options = parser.parse_args(arguments)
    if options.device:
        return elsewhere.run(
            elsewhere.Wanted(
                "bench.device", "measurement", [options.runner], writes={"out": options.out}
            ),
            options,
        )
    profile = device.measure(options.runner, options.name, say=functools.partial(print, flush=True))
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
