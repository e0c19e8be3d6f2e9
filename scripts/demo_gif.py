"""Make docs/demo.gif of the video of a demo.

    vla-ros demo --scene bench --lockstep --output runs/demo
    python scripts/demo_gif.py runs/demo/demo.mp4
"""

import argparse
from pathlib import Path

import av
import numpy as np
from PIL import Image

GIF = Path(__file__).parents[1] / "docs" / "demo.gif"
WIDTH, RATE, COLOURS = 480, 5.0, 128  # pixels, Hz, of the palette that all frames share


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", help="demo.mp4")
    pictures, due = [], 0.0
    with av.open(parser.parse_args().video) as container:
        for frame in container.decode(video=0):
            if frame.time >= due:
                picture = frame.to_image()
                pictures.append(picture.resize((WIDTH, round(WIDTH * picture.height / picture.width)), Image.LANCZOS))
                due += 1 / RATE
    some = np.concatenate([np.asarray(picture) for picture in pictures[::10]])
    palette = Image.fromarray(some).quantize(COLOURS, kmeans=2)
    frames = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    frames[0].save(GIF, save_all=True, append_images=frames[1:], duration=round(1000 / RATE), loop=0, optimize=True)
    print(f"{GIF}: {len(frames)} frames, {GIF.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
