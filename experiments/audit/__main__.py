from dgu import parallel
from experiments.audit import main
from experiments.study.ends import begin

begin("audit", parallel.start)
main()
