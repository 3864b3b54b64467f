# SPDX-License-Identifier: MIT
"""The status page in a real browser, over a real promptd: what it says when all is well, and when something is not."""

import json
import re

import pytest
from selenium.webdriver.common.keys import Keys

from support.browser import Browser
from support.expect import expect_nothing_stored
from support.page_server import PageServer, sample_status, trouble
from support.postgres import ROLE
from support.process import Port
from support.redis_server import Channel
from support.wait import wait_until

PROMPTS = "interview_enhanced_prompts"


@pytest.fixture(scope="module")
def chromium(new_folder):
    browser = Browser(new_folder("browser"))
    yield browser
    browser.close()


@pytest.fixture
def browser(chromium):
    """As a visitor has it; what the page complains of fails the test."""
    chromium.look()
    yield chromium
    complaints = chromium.console()
    chromium.open("about:blank")  # no page asks on
    assert complaints == []


@pytest.fixture
def visit(browser):
    """visit(url): opens the page and waits for what it has to say first."""
    def go(url):
        browser.open(url + "/")
        browser.wait_text("#updated", "as of")

    return go


@pytest.fixture
def sample(closing):
    """The page over a state of the test's choice."""
    return closing(PageServer())


# All is well


def test_well(start_promptd, database, channel, browser, visit):
    promptd = start_promptd()
    for _ in range(3):
        channel.publish(database.interview())
    promptd.settle(3)
    visit(promptd.admin_url)
    assert browser.text("#title") == "All is well" and browser.driver.title == "All is well – promptd"
    assert browser.text("#since").startswith("Running for ")
    assert browser.text("#since").endswith(", and well ever since.")
    assert browser.text("#redis-state") == "subscribed" and browser.text("#database-state") == "answers"
    assert channel.name in browser.text("#redis-facts") and "4 of 4" in browser.text("#database-facts")
    assert browser.text("#account-title") == "Every message accounted for"
    assert "received 3 stored 3" in browser.text("#sums")
    assert browser.all("#orphans, #problems, #circuit, #retry, #trouble-list li") == []


def test_lives_without_reloading_and_asks_nobody_else(start_promptd, database, channel, browser, visit):
    promptd = start_promptd()
    visit(promptd.admin_url)
    browser.run("window.loaded_once = true")
    channel.publish(database.interview())
    rejected = database.interview()
    channel.publish_raw(json.dumps({"interview_id": rejected, "enhanced_prompt": channel.marker[:9]}).encode())
    browser.wait_text("#sums", "received 2 stored 1", "rejected 1")
    browser.wait_text("#title", "not every message was stored")
    entry = browser.text("#trouble-list li")
    assert "rejected" in entry and "prompt_too_short" in entry and rejected in entry
    assert browser.run("return window.loaded_once") is True
    assert channel.marker[:9] not in browser.driver.page_source
    own = promptd.admin_url
    asked = {url for url in browser.requests() if not url.startswith("data:")}
    assert asked == {f"{own}/", f"{own}/status"}


def test_history_is_drawn(start_promptd, database, channel, browser, visit):
    promptd = start_promptd()
    visit(promptd.admin_url)
    for _ in range(4):
        channel.publish(database.interview())
    browser.wait_text("#rate", "4", timeout=15)  # the interval of five seconds is over
    assert "4 received, 4 stored, 0 failed" in browser.find("#rate-chart").get_attribute("aria-label")
    assert browser.find("#rate-chart .stored").get_attribute("d").startswith("M")
    assert browser.find("#latency-chart .p99").get_attribute("d").startswith("M")
    assert browser.text("#latency").endswith("ms")


# Something is not


def test_redis_away_and_its_circuit(start_promptd, own_redis, browser, visit):
    promptd = start_promptd(on=Channel(own_redis), breaker_failures=2, breaker_reset_s=600)
    visit(promptd.admin_url)
    own_redis.stop()
    browser.wait_text("#title", "Redis is away")
    browser.wait_text("#problems", "the circuit is open", "not received")
    assert browser.text("#redis-state") == "circuit open"
    assert browser.find("#pipe-in").get_attribute("data-flow") == "cut"
    button = browser.find("#close-circuit")
    assert button.is_displayed() and "Redis is known" in browser.text("#circuit-hint")
    own_redis.start()
    button.send_keys(Keys.ENTER)
    browser.wait_text("#title", "All is well")
    assert not button.is_displayed()
    assert browser.run("return document.activeElement.id") == "title"  # the keyboard is not lost
    promptd.wait_line("INFO", "Redis connection back")


def test_database_away(start_promptd, database, database_proxy, channel, browser, visit):
    promptd = start_promptd(database_url=database.url(database_proxy.port))
    visit(promptd.admin_url)
    database_proxy.refuse()
    browser.wait_text("#title", "PostgreSQL is away")
    assert browser.text("#since").startswith("Since ") and "before" not in browser.text("#since")
    channel.publish(database.interview())
    browser.wait_text("#problems", "1 message waits in memory until it is back.")
    assert browser.text("#queue-state") == "1 message" and browser.text("#database-state") == "does not answer"
    assert browser.all("#circuit") == []
    database_proxy.restore()
    browser.wait_text("#title", "All is well")
    browser.wait_text("#sums", "received 1 stored 1")


def test_orphan_is_cleaned_up_as_the_page_says(start_promptd, database, channel, browser, visit):
    promptd = start_promptd(atomicity="compensate", reconcile_interval_s=1)
    database.raise_on("interviews", "update", "not ready", when="new.status = 'ready'")
    database.execute(f"revoke delete on {PROMPTS} from {ROLE}")
    message = channel.publish(database.interview())
    promptd.settle(1)
    visit(promptd.admin_url)
    assert browser.text("#title") == "1 orphaned prompt needs a person"
    assert browser.find("#verdict").get_attribute("data-level") == "bad"
    listed = browser.text("#orphan-list")
    assert message.id in listed and message.interview in listed
    assert browser.text("#clean-all pre") == "promptctl orphans --delete"
    assert "permission denied" in browser.text("#trouble-list li") and "42501" in browser.text("#trouble-list li")

    database.execute("update interviews set status = 'enhancing' where id = %s", [message.interview])
    database.execute(browser.find("#orphan-list pre").get_attribute("textContent"))
    expect_nothing_stored(database, message.interview, "failed")
    database.execute(f"grant delete on {PROMPTS} to {ROLE}")
    browser.wait_text("#title", "Well, but not every message was stored")
    assert browser.all("#orphans") == []


@pytest.mark.parametrize("status", ["ready", "in_progress"])
def test_orphan_that_is_settled_after_all_is_kept(sample, database, channel, browser, visit, status):
    """The commands of a page that was opened before the message came again."""
    message = channel.message(database.interview(status))
    sample.status = sample_status()
    sample.status["orphans"] = [{"interview_id": message.interview, "prompt_id": message.id,
                                 "since": sample.status["timestamp"]}]
    visit(sample.url[:-1])
    database.add_prompt(message)
    database.execute(browser.find("#orphan-list pre").get_attribute("textContent"))
    assert len(database.prompts(message.interview)) == 1 and database.status(message.interview) == status


def test_promptd_dead_and_back(start_promptd, closing, browser, visit):
    port = Port()
    try:
        first = start_promptd(admin_listen=f"127.0.0.1:{port.number}")
        visit(first.admin_url)
        first.crash()
        browser.wait_text("#title", "promptd does not answer since")
        browser.wait_text("#next", "asking again in")
        assert browser.text("#since").startswith("What stands below is what it said at")
        assert browser.run("return document.body.className") == "gone"
        start_promptd(admin_listen=f"127.0.0.1:{port.number}").admin_url
        browser.find("#ask-now").send_keys(Keys.ENTER)
        browser.wait_text("#title", "All is well")
        assert browser.run("return document.body.className") == "" and browser.all("#retry") == []
    finally:
        port.release()
    refused = browser.console()  # the browser's own words for what the page says to people
    assert refused and all(re.search("ERR_(CONNECTION_REFUSED|CONNECTION_RESET|EMPTY_RESPONSE)", each)
                           for each in refused), refused


def test_answer_that_is_none(sample, browser, visit):
    visit(sample.url[:-1])
    sample.status = b"<html>a proxy's page</html>"
    browser.wait_text("#title", "promptd does not answer since")
    sample.status = sample_status()
    browser.wait_text("#title", "All is well")


def test_content_is_only_ever_text(sample, browser, visit):
    evil = "<img src=x onerror=\"document.title='owned'\"><b>"
    status = sample_status()
    status["orphans"] = [{"interview_id": "'; drop table interviews; --", "prompt_id": evil,
                          "since": status["timestamp"]}]
    status["troubles"] = [dict(trouble(20, evil, 1, evil, evil), interview_id=evil)]
    for part, key in (("redis", "server"), ("redis", "channel"), ("spool", "directory")):
        status[part][key] = evil
    status["version"] = status["atomicity"] = evil
    sample.status = status
    visit(sample.url[:-1])
    assert evil in browser.text("#trouble-list") and evil in browser.text("#redis-facts")
    assert browser.run("return document.querySelectorAll('img, main b:not(#rate, #latency)').length") == 0
    assert browser.all("#orphan-list .command") == []  # no command is made of what is not an id
    assert "owned" not in browser.driver.title


# For everybody


@pytest.fixture
def crowded(sample):
    """Everything that can be shown, is."""
    status = sample_status()
    status["ready"] = False
    status["redis"].update(connected=False, circuit_open=True, failures=10)
    status["troubles"] = [trouble(60 * n, "rolled back", n, "x" * 150, "23514") for n in range(1, 31)]
    status["orphans"] = [{key: each[key] for key in ("interview_id", "prompt_id")} | {"since": each["time"]}
                         for each in status["troubles"][:2]]
    status["spool"].update(dead_letters=3, directory="/a/very/long/folder/name/that/goes/on/and/on/without/an/end")
    sample.status = status
    return sample


@pytest.mark.parametrize("width", [320, 360])
def test_phone(crowded, browser, visit, width):
    browser.look(width=width, height=640)
    visit(crowded.url[:-1])
    browser.find("summary").click()
    assert browser.run("return document.documentElement.scrollWidth") == width
    wide = browser.run("""return [...document.querySelectorAll('main *')]
        .filter((each) => each.getClientRects().length && !each.closest('.unseen, svg'))
        .filter((each) => each.getBoundingClientRect().right > innerWidth).map((each) => each.outerHTML)""")
    assert wide == []


def test_keyboard(crowded, browser, visit):
    visit(crowded.url[:-1])
    wanted = len(browser.all("button, a, summary"))
    reached = []
    while len(reached) <= wanted:
        browser.driver.switch_to.active_element.send_keys(Keys.TAB)
        name, outline = browser.run("""const at = document.activeElement;
            return [at === document.body ? null : at.getAttribute('aria-label') || at.textContent,
                    getComputedStyle(at).outlineStyle]""")
        if name is None:
            break
        reached.append(name)
        assert outline == "solid", f"no visible focus on {name}"
    assert reached[0] == "Close the circuit and try now" and len(reached) == wanted
    assert len(set(reached)) == wanted, "two things of one name"
    browser.find("#all-troubles").send_keys(Keys.ENTER)
    assert len(browser.all("#trouble-list li")) == 30 and browser.text("#all-troubles") == "Show fewer"
    button = browser.find("#orphan-list button")
    button.send_keys(Keys.ENTER)
    browser.wait_text("#orphan-list button", "Copied")
    assert browser.find("#said").get_attribute("textContent") == "Copied"
    browser.find("#close-circuit").send_keys(Keys.ENTER)
    wait_until(lambda: crowded.posts == ["/admin/redis/reset-circuit-breaker"], "the request", seen=lambda: crowded.posts)
    browser.wait_text("#updated", "as of")


def test_structure(crowded, browser, visit):
    """What a screen reader finds its way by."""
    visit(crowded.url[:-1])
    tree = browser.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = [node["role"]["value"] for node in tree if not node["ignored"] and "role" in node]
    assert all(roles.count(role) == 1 for role in ("banner", "main", "contentinfo"))
    levels = [int(element.tag_name[1]) for element in browser.driver.find_elements("css selector", "h1, h2, h3")]
    assert levels[0] == 1 and all(after - before <= 1 for before, after in zip(levels, levels[1:]))
    named = ("button", "link", "image", "region")
    unnamed = [node for node in tree if not node["ignored"] and node["role"]["value"] in named
               and not node.get("name", {}).get("value")]
    assert unnamed == []
    assert browser.find("#title").find_element("xpath", "..").get_attribute("aria-live") == "polite"


CONTRAST = """
const paint = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
const rgb = (colour) => {
  paint.clearRect(0, 0, 1, 1);
  paint.fillStyle = colour;
  paint.fillRect(0, 0, 1, 1);
  return [...paint.getImageData(0, 0, 1, 1).data];
};
const light = (colour) => rgb(colour).slice(0, 3)
  .map((c) => c / 255 <= .03928 ? c / 255 / 12.92 : ((c / 255 + .055) / 1.055) ** 2.4)
  .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
const back = (node) => {
  const colour = getComputedStyle(node).backgroundColor;
  return rgb(colour)[3] === 255 ? colour : back(node.parentElement);
};
const poor = [];
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const node = walk.currentNode.parentElement;
  if (!walk.currentNode.data.trim() || !node.getClientRects().length || node.closest('.unseen')) continue;
  const style = getComputedStyle(node), paper = light(back(node));
  const ink = light(node.closest('svg') ? style.fill : style.color);
  const ratio = (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05);
  if (ratio < 4.5) poor.push([node.tagName, walk.currentNode.data, ratio]);
}
return poor;
"""


@pytest.mark.parametrize("dark", [False, True])
def test_contrast(crowded, browser, visit, dark):
    browser.look(dark=dark)
    visit(crowded.url[:-1])
    assert browser.run("return matchMedia('(prefers-color-scheme: dark)').matches") is dark
    assert browser.run(CONTRAST) == []


def test_motion_is_a_matter_of_taste(sample, browser, visit):
    moving = """return document.getAnimations()
        .filter((each) => each.effect.getComputedTiming().iterations === Infinity).length"""
    visit(sample.url[:-1])
    assert browser.run(moving) == 0
    browser.look(still=False)
    assert browser.run(moving) == 2
