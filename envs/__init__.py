"""Built-in environments. The folder is `envs/`; the import name is `agentrl.envs`."""

if __name__ == "envs":
    raise ImportError("import agentrl.envs, not envs: a second copy would not share its classes")

ENVS = {
    "code/functions": "agentrl.envs.code:FunctionsEnv",
    "code/session": "agentrl.envs.code:SessionEnv",
    "code/shell": "agentrl.envs.code:ShellEnv",
    "demo/calculator": "agentrl.envs.demo:CalculatorEnv",
    "demo/door": "agentrl.envs.demo:DoorEnv",
    "demo/guess": "agentrl.envs.demo:GuessEnv",
    "desktop/tasks": "agentrl.envs.desktop:DesktopEnv",
    "games/frozenlake": "agentrl.envs.games:FrozenLakeEnv",
    "games/sokoban": "agentrl.envs.games:SokobanEnv",
    "household/tasks": "agentrl.envs.household:HouseholdEnv",
    "math/problems": "agentrl.envs.math:MathEnv",
    "mcp/tasks": "agentrl.envs.mcp:McpEnv",
    "miniwob/tasks": "agentrl.envs.miniwob:MiniWobEnv",
    "qa/questions": "agentrl.envs.qa:QuestionEnv",
    "search/corpus": "agentrl.envs.search:CorpusSearchEnv",
    "search/facts": "agentrl.envs.search:FactsSearchEnv",
    "search/web": "agentrl.envs.search:WebSearchEnv",
    "service/tasks": "agentrl.envs.service:ServiceEnv",
    "webshop/tasks": "agentrl.envs.webshop:WebShopEnv",
}
"""Id -> "module:Class", imported when the id is asked for."""
