"""Problems of a scene that someone should mend, told from those that merely are so."""


class Fault(str):
    """A sentence in ``Scene.problems`` about data that is damaged, lost or contradicts itself.

    Other sentences there say what a recording never had, for instance a map or CAN messages.
    """

    __slots__ = ()
