"""A Ray without processes, for tests of what is done with Ray."""

from types import ModuleType, SimpleNamespace

DEATHS = ("WorkerCrashedError", "OutOfMemoryError", "NodeDiedError")


class Reference:
    """What the pretended Ray gives for a task; the answer is made when it is fetched."""

    def __init__(self, answer):
        self.answer = answer


def pretended_ray(*, cluster="auto"):
    """Return a module that works like the part of Ray that is used, last task first."""
    ray = ModuleType("ray")
    ray.cancelled, ray.options = [], {}
    error = type("RayError", (Exception,), {})
    kinds = {name: type(name, (error,), {}) for name in DEATHS}
    ray.exceptions = SimpleNamespace(RayError=error, **kinds)

    def init(*, address, ignore_reinit_error):
        assert ignore_reinit_error
        if address != cluster:
            raise ConnectionError("nobody listens")

    def remote(**options):
        ray.options = options
        return lambda function: SimpleNamespace(
            remote=lambda *arguments: Reference(lambda: function(*arguments))
        )

    def get(reference):
        answer = reference.answer()
        if answer[0] and answer[1] in DEATHS:
            raise kinds[answer[1]]
        return answer

    ray.init, ray.remote, ray.get = init, remote, get
    ray.cluster_resources = lambda: {"CPU": 2.0}
    ray.wait = lambda references, num_returns: (references[-num_returns:], references[:-num_returns])
    ray.cancel = lambda reference, force: ray.cancelled.append(reference)
    return ray
