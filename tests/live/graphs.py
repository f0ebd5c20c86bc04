"""Graphs that good and hostile clients send, no two alike, and how each must end."""

import json

from locked_down import NEGATED, SEALED


def of(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


class Graphs:
    """Graphs of each kind, no two alike; the state that each must end in."""

    def __init__(self, shipped: dict) -> None:
        self.shipped, self.count = shipped, 0

    def good(self, steps: int = 1) -> dict:
        self.count += 1
        graph = json.loads(json.dumps(self.shipped))
        graph["2"]["inputs"]["lora_name"] = SEALED
        del graph["5"]["inputs"]["clip"]  # its network is asked nothing, which takes long
        for text in ("6", "7"):
            graph[text]["inputs"]["clip"] = ["1", 1]
        graph["8"]["inputs"].update(width=64, height=64, batch_size=1)
        graph["9"]["inputs"].update(steps=steps, seed=self.count)
        return graph

    def bypass(self) -> dict:
        graph = self.good()
        graph["9"]["inputs"]["model"] = ["1", 0]
        return graph

    def mixed(self) -> dict:
        graph = self.good()
        graph["20"] = of("ModelMergeSimple", model1=["1", 0], model2=["5", 0], ratio=0.5)
        graph["9"]["inputs"]["model"] = ["20", 0]
        return graph

    def negated(self) -> dict:
        graph = self.good()
        undone = {"lora_name": NEGATED, "strength_model": 1.0}
        graph["20"] = of("LoraLoaderModelOnly", model=["5", 0], **undone)
        graph["9"]["inputs"]["model"] = ["20", 0]
        return graph

    def strange_task(self) -> dict:
        graph = self.good()
        graph["3"]["inputs"]["lora_name"] = NEGATED
        return graph

    def decoded(self) -> dict:
        """A photograph and a plain picture through a VAE."""
        return {**self._batch(), "7": of("SaveImage", images=["6", 0], filename_prefix="v")}

    def previewed(self) -> dict:
        return {**self._batch(), "7": of("PreviewImage", images=["6", 0])}

    def passed_by(self) -> dict:
        """Past every VAE: the door sees it."""
        return {**self._batch(), "7": of("SaveImage", images=["3", 0], filename_prefix="d")}

    def by_socket(self) -> dict:
        return {**self._batch(), "7": of("SaveImageWebsocket", images=["3", 0])}

    def _batch(self) -> dict:
        self.count += 1
        return {
            "1": of("LoadImage", image="astronaut.png"),
            "2": of("EmptyImage", width=512, height=512, batch_size=1, color=self.count * 7919),
            "3": of("ImageBatch", image1=["2", 0], image2=["1", 0]),
            "4": of("VAELoader", vae_name="pixel_space"),
            "5": of("VAEEncode", pixels=["3", 0], vae=["4", 0]),
            "6": of("VAEDecode", samples=["5", 0], vae=["4", 0]),
        }

    def half(self) -> dict:
        """Of a file that ends in the middle of the photograph."""
        return self._loaded("half.png")

    def unreadable(self) -> dict:
        return self._loaded("text.png")

    def _loaded(self, name: str) -> dict:
        self.count += 1
        shown = of("SaveImage", images=["1", 0], filename_prefix=f"h{self.count}")
        return {"1": of("LoadImage", image=name), "2": shown}

    def unknown(self) -> dict:
        return {"1": of("NoSuchNode")}

    def no_output(self) -> dict:
        return {"1": of("EmptyImage", width=8, height=8, batch_size=1, color=0)}

    def interrupted(self) -> dict:
        return self.good(steps=5000)


ENDED = {  # how a prompt of each kind ends
    **dict.fromkeys(("good", "decoded", "previewed", "passed_by", "by_socket", "half"), "success"),
    **dict.fromkeys(("bypass", "mixed", "negated", "strange_task", "unreadable"), "error"),
    **dict.fromkeys(("unknown", "no_output"), "invalid"),
    "interrupted": "interrupted",
}
