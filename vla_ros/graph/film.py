"""What the cameras of a graph showed in a run, as a video."""

from functools import partial
from pathlib import Path

import numpy as np
from sensor_msgs.msg import CompressedImage

from vla_ros.bags.compress import SUFFIX
from vla_ros.core.files import new_file
from vla_ros.core.robot import RobotSpec
from vla_ros.datasets.video import VideoWriter
from vla_ros.graph.demo_bag import side_by_side
from vla_ros.graph.processes import Graph
from vla_ros.messages.images import rgb_image
from vla_ros.messages.stamps import stamp_ns
from vla_ros.nodes.qos import RECORDED_DEPTH, sensor_qos


class Film:
    """Keeps the compressed images of the robot's cameras until they are written or forgotten."""

    def __init__(self, graph: Graph, robot: RobotSpec) -> None:
        self._images: dict[str, dict[int, CompressedImage]] = {camera.name: {} for camera in robot.cameras}
        for camera in robot.cameras:
            topic = camera.topic if camera.compressed else camera.topic + SUFFIX
            take, qos = partial(self._take, camera.name), sensor_qos(reliable=True, depth=RECORDED_DEPTH)
            graph.node.create_subscription(CompressedImage, topic, take, qos)

    def _take(self, camera: str, message: CompressedImage) -> None:
        self._images[camera][stamp_ns(message)] = message

    def forget(self) -> None:
        for images in self._images.values():
            images.clear()

    def write(self, path: Path, rate: float, start_ns: int = 0) -> int:
        """Write what all cameras showed from `start_ns` on, side by side, as an mp4 of `rate` Hz.

        Returns the number of frames: no file at 0. The last ones may lack where the middleware is behind. Raises
        InputError for a file that cannot be written.
        """
        stamps = sorted(stamp for stamp in set.intersection(*map(set, self._images.values())) if stamp >= start_ns)
        if not stamps:
            return 0
        with new_file(path, "video") as part:
            video: VideoWriter | None = None
            for stamp in stamps:
                picture = side_by_side([rgb_image(images[stamp]) for images in self._images.values()])
                video = video or VideoWriter(part, rate, *picture.shape[:2])
                video.add(np.stack([picture]))
            video.close()
        return len(stamps)
