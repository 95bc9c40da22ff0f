from planner.mirror.facts import Facts
from planner.mirror.programs import Program
def fused_program(f: Facts) -> Program: raise NotImplementedError
