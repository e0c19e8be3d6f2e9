"""Tasks of other people's benchmarks, whose names and sentences must be known without their packages.

METAWORLD: the fifty tasks of MT50, in the words of LeRobot's metaworld_config.json, which published policies were
trained with. LIBERO: suite -> the sentences of its tasks, in the order of hf-libero's task map, made of the names there
as it makes them; some of LIBERO-90 occur in several scenes.
"""

METAWORLD = {
    "assembly-v3": "Pick up a nut and place it onto a peg",
    "basketball-v3": "Dunk the basketball into the basket",
    "bin-picking-v3": "Grasp the puck from one bin and place it into another bin",
    "box-close-v3": "Grasp the cover and close the box with it",
    "button-press-topdown-v3": "Press a button from the top",
    "button-press-topdown-wall-v3": "Bypass a wall and press a button from the top",
    "button-press-v3": "Press a button",
    "button-press-wall-v3": "Bypass a wall and press a button",
    "coffee-button-v3": "Push a button on the coffee machine",
    "coffee-pull-v3": "Pull a mug from a coffee machine",
    "coffee-push-v3": "Push a mug under a coffee machine",
    "dial-turn-v3": "Rotate a dial 180 degrees",
    "disassemble-v3": "Pick a nut out of a peg",
    "door-close-v3": "Close a door with a revolving joint",
    "door-lock-v3": "Lock the door by rotating the lock clockwise",
    "door-open-v3": "Open a door with a revolving joint",
    "door-unlock-v3": "Unlock the door by rotating the lock counter-clockwise",
    "drawer-close-v3": "Push and close a drawer",
    "drawer-open-v3": "Open a drawer",
    "faucet-close-v3": "Rotate the faucet clockwise",
    "faucet-open-v3": "Rotate the faucet counter-clockwise",
    "hammer-v3": "Hammer a screw on the wall",
    "hand-insert-v3": "Insert the gripper into a hole",
    "handle-press-side-v3": "Press a handle down sideways",
    "handle-press-v3": "Press a handle down",
    "handle-pull-side-v3": "Pull a handle up sideways",
    "handle-pull-v3": "Pull a handle up",
    "lever-pull-v3": "Pull a lever down 90 degrees",
    "peg-insert-side-v3": "Insert a peg sideways",
    "peg-unplug-side-v3": "Unplug a peg sideways",
    "pick-out-of-hole-v3": "Pick up a puck from a hole",
    "pick-place-v3": "Pick and place a puck to a goal",
    "pick-place-wall-v3": "Pick a puck, bypass a wall and place the puck",
    "plate-slide-back-side-v3": "Get a plate from the cabinet sideways",
    "plate-slide-back-v3": "Get a plate from the cabinet",
    "plate-slide-side-v3": "Slide a plate into a cabinet sideways",
    "plate-slide-v3": "Slide a plate into a cabinet",
    "push-back-v3": "Push the puck to a goal",
    "push-v3": "Push the puck to a goal",
    "push-wall-v3": "Bypass a wall and push a puck to a goal",
    "reach-v3": "Reach a goal position",
    "reach-wall-v3": "Bypass a wall and reach a goal",
    "shelf-place-v3": "Pick and place a puck onto a shelf",
    "soccer-v3": "Kick a soccer into the goal",
    "stick-pull-v3": "Grasp a stick and pull a box with the stick",
    "stick-push-v3": "Grasp a stick and push a box using the stick",
    "sweep-into-v3": "Sweep a puck into a hole",
    "sweep-v3": "Sweep a puck off the table",
    "window-close-v3": "Push and close a window",
    "window-open-v3": "Push and open a window",
}

LIBERO = {
    "spatial": """\
pick up the black bowl between the plate and the ramekin and place it on the plate
pick up the black bowl next to the ramekin and place it on the plate
pick up the black bowl from table center and place it on the plate
pick up the black bowl on the cookie box and place it on the plate
pick up the black bowl in the top drawer of the wooden cabinet and place it on the plate
pick up the black bowl on the ramekin and place it on the plate
pick up the black bowl next to the cookie box and place it on the plate
pick up the black bowl on the stove and place it on the plate
pick up the black bowl next to the plate and place it on the plate
pick up the black bowl on the wooden cabinet and place it on the plate
""".splitlines(),
    "object": """\
pick up the alphabet soup and place it in the basket
pick up the cream cheese and place it in the basket
pick up the salad dressing and place it in the basket
pick up the bbq sauce and place it in the basket
pick up the ketchup and place it in the basket
pick up the tomato sauce and place it in the basket
pick up the butter and place it in the basket
pick up the milk and place it in the basket
pick up the chocolate pudding and place it in the basket
pick up the orange juice and place it in the basket
""".splitlines(),
    "goal": """\
open the middle drawer of the cabinet
put the bowl on the stove
put the wine bottle on top of the cabinet
open the top drawer and put the bowl inside
put the bowl on top of the cabinet
push the plate to the front of the stove
put the cream cheese in the bowl
turn on the stove
put the bowl on the plate
put the wine bottle on the rack
""".splitlines(),
    "10": """\
put both the alphabet soup and the tomato sauce in the basket
put both the cream cheese box and the butter in the basket
turn on the stove and put the moka pot on it
put the black bowl in the bottom drawer of the cabinet and close it
put the white mug on the left plate and put the yellow and white mug on the right plate
pick up the book and place it in the back compartment of the caddy
put the white mug on the plate and put the chocolate pudding to the right of the plate
put both the alphabet soup and the cream cheese box in the basket
put both moka pots on the stove
put the yellow and white mug in the microwave and close it
""".splitlines(),
    "90": """\
close the top drawer of the cabinet
close the top drawer of the cabinet and put the black bowl on top of it
put the black bowl in the top drawer of the cabinet
put the butter at the back in the top drawer of the cabinet and close it
put the butter at the front in the top drawer of the cabinet and close it
put the chocolate pudding in the top drawer of the cabinet and close it
open the bottom drawer of the cabinet
open the top drawer of the cabinet
open the top drawer of the cabinet and put the bowl in it
put the black bowl on the plate
put the black bowl on top of the cabinet
open the top drawer of the cabinet
put the black bowl at the back on the plate
put the black bowl at the front on the plate
put the middle black bowl on the plate
put the middle black bowl on top of the cabinet
stack the black bowl at the front on the black bowl in the middle
stack the middle black bowl on the back black bowl
put the frying pan on the stove
put the moka pot on the stove
turn on the stove
turn on the stove and put the frying pan on it
close the bottom drawer of the cabinet
close the bottom drawer of the cabinet and open the top drawer
put the black bowl in the bottom drawer of the cabinet
put the black bowl on top of the cabinet
put the wine bottle in the bottom drawer of the cabinet
put the wine bottle on the wine rack
close the top drawer of the cabinet
put the black bowl in the top drawer of the cabinet
put the black bowl on the plate
put the black bowl on top of the cabinet
put the ketchup in the top drawer of the cabinet
close the microwave
put the yellow and white mug to the front of the white mug
open the microwave
put the white bowl on the plate
put the white bowl to the right of the plate
put the right moka pot on the stove
turn off the stove
put the frying pan on the cabinet shelf
put the frying pan on top of the cabinet
put the frying pan under the cabinet shelf
put the white bowl on top of the cabinet
turn on the stove
turn on the stove and put the frying pan on it
pick up the alphabet soup and put it in the basket
pick up the cream cheese box and put it in the basket
pick up the ketchup and put it in the basket
pick up the tomato sauce and put it in the basket
pick up the alphabet soup and put it in the basket
pick up the butter and put it in the basket
pick up the milk and put it in the basket
pick up the orange juice and put it in the basket
pick up the tomato sauce and put it in the basket
pick up the alphabet soup and put it in the tray
pick up the butter and put it in the tray
pick up the cream cheese and put it in the tray
pick up the ketchup and put it in the tray
pick up the tomato sauce and put it in the tray
pick up the black bowl on the left and put it in the tray
pick up the chocolate pudding and put it in the tray
pick up the salad dressing and put it in the tray
stack the left bowl on the right bowl and place them in the tray
stack the right bowl on the left bowl and place them in the tray
put the red mug on the left plate
put the red mug on the right plate
put the white mug on the left plate
put the yellow and white mug on the right plate
put the chocolate pudding to the left of the plate
put the chocolate pudding to the right of the plate
put the red mug on the plate
put the white mug on the plate
pick up the book and place it in the front compartment of the caddy
pick up the book and place it in the left compartment of the caddy
pick up the book and place it in the right compartment of the caddy
pick up the yellow and white mug and place it to the right of the caddy
pick up the book and place it in the back compartment of the caddy
pick up the book and place it in the front compartment of the caddy
pick up the book and place it in the left compartment of the caddy
pick up the book and place it in the right compartment of the caddy
pick up the book and place it in the front compartment of the caddy
pick up the book and place it in the left compartment of the caddy
pick up the book and place it in the right compartment of the caddy
pick up the red mug and place it to the right of the caddy
pick up the white mug and place it to the right of the caddy
pick up the book in the middle and place it on the cabinet shelf
pick up the book on the left and place it on top of the shelf
pick up the book on the right and place it on the cabinet shelf
pick up the book on the right and place it under the cabinet shelf
""".splitlines(),
}
