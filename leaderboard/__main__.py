from leaderboard.cli import app

app(prog_name="python -m leaderboard")
