"""Environments of somebody else's package; the table imports none of them."""

ENVS = {
    "acme/echo": "acme_envs.echo:EchoEnv",
    "acme/crash": "acme_envs.crash:CrashEnv",
    "demo/guess": "acme_envs.echo:EchoEnv",
}
