"""Commands run in this process."""


def exit_code(main, arguments):
    """The exit code of a command whose ``main`` takes its arguments."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code
    return 0
