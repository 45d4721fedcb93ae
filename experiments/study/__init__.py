"""The vocabulary of a study: declare options, claims and figures; measure and report in parts; the rest follows.

``Options`` and ``option`` declare options with their bounds; ``Claim`` declares what is tested, with ``at_least``,
``at_most``, ``within``, ``equivalent``, ``different``, ``each`` and ``all_of``; ``Figure`` declares what is drawn. A
``Part`` has ``measure``, which is slow and stored in stages of its ``Run``, and ``report``, which is pure and returns
``Findings``. A ``Study`` joins parts that share a subject.
"""

from experiments.study.claims import AllOf as AllOf
from experiments.study.claims import Claim as Claim
from experiments.study.claims import Each as Each
from experiments.study.claims import Measured as Measured
from experiments.study.claims import Noted as Noted
from experiments.study.claims import NotTested as NotTested
from experiments.study.claims import Test as Test
from experiments.study.claims import all_of as all_of
from experiments.study.claims import at_least as at_least
from experiments.study.claims import at_most as at_most
from experiments.study.claims import different as different
from experiments.study.claims import each as each
from experiments.study.claims import equivalent as equivalent
from experiments.study.claims import within as within
from experiments.study.costs import Cost as Cost
from experiments.study.figures import Figure as Figure
from experiments.study.guide import Guide as Guide
from experiments.study.materials import Materials as Materials
from experiments.study.options import Options as Options
from experiments.study.options import option as option
from experiments.study.part import Findings as Findings
from experiments.study.part import Part as Part
from experiments.study.part import Run as Run
from experiments.study.report import Table as Table
from experiments.study.run_directory import RunDirectory as RunDirectory
from experiments.study.study import Study as Study
