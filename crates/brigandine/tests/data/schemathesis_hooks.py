"""What schemathesis sends otherwise than it would, and checks of each answer beside its own checks."""

import schemathesis

# The only two errors of the server, which clients of Cuirass expect. docs/http.md names them.
EXPECTED = ('{"error":"Parameter not defined!"}', '{"error":"Maximum limit exceeded"}')

# Up to here, numbers of 64 bits may be written with a fraction of zero. The server refuses larger ones, lest a parser
# round them to others.
EXACT_MAX = 900_719_925_474_099


def plain(value):
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, float) and value.is_integer() and abs(value) > EXACT_MAX:
        return int(value)
    return value


@schemathesis.hook
def before_call(context, case, kwargs):
    body = plain(case.body)
    # Equal numbers may be written in two ways. A body that is set counts as another one, so most are left alone.
    if repr(body) != repr(case.body):
        case.body = body


@schemathesis.check
def server_errors_are_documented(ctx, response, case):
    if response.status_code == 503:
        # A bound is reached, or the server waits for a disk or a lock: it says when to ask again.
        assert "retry-after" in response.headers, "503 without Retry-After"
    elif response.status_code >= 500:
        assert response.status_code == 500, f"status {response.status_code} is not documented"
        assert response.text in EXPECTED, f"status 500 with another body: {response.text}"
