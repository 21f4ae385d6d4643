"""Clients of the anthropic package, in each way a call can go."""

from tests.client import provider_runs
from tests.client.provider_cases import AnthropicMessages, BedrockMessages, Case
from tests.client.provider_runs import Way
from tests.client.quiet import SDKS_ARE_QUIET
from tests.support.service import Account

pytestmark = SDKS_ARE_QUIET


@provider_runs.grid(AnthropicMessages(), BedrockMessages())
async def test_the_caller_sees_no_difference_and_every_token_is_recorded_once(
    case: Case, way: Way, shared_account: Account, *, is_async: bool
) -> None:
    await provider_runs.compare(case, way, shared_account, is_async=is_async)
