"""A driver for vla_ros: measured positions out, commanded positions in. Replace Bus by your servos' bus."""

import rclpy
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray

JOINTS = ["shoulder", "elbow"]  # as the robot file calls them, in the order of its command group


class Bus:
    """Servos that reach each commanded position at once, in rad."""

    angles = [0.3, -0.2]

    def read(self):
        return self.angles

    def write(self, angles):
        self.angles = list(angles)


class Driver(Node):
    def __init__(self):
        super().__init__("arm_driver")
        self.bus = Bus()
        self.states = self.create_publisher(JointState, "joint_states", qos_profile_sensor_data)
        self.create_subscription(Float64MultiArray, "arm/commands", self.command, 1)  # only the newest counts
        self.create_timer(0.02, self.measure)  # 50 Hz

    def measure(self):
        state = JointState(name=JOINTS)
        state.header.stamp = self.get_clock().now().to_msg()  # before the bus is read, not after
        state.position = self.bus.read()
        self.states.publish(state)

    def command(self, message):
        if len(message.data) == len(JOINTS):
            self.bus.write(message.data)


if __name__ == "__main__":
    rclpy.init()
    rclpy.spin(Driver())
