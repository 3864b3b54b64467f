# SPDX-License-Identifier: MIT
"""A headless Chromium that sees only what the test serves, and tells what went wrong in it."""

import base64
import json
import os
import shutil

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from .wait import wait_until

FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--disable-extensions", "--hide-scrollbars", "--force-color-profile=srgb", "--lang=en-US")


class Browser:
    def __init__(self, folder):
        chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
        if chromium is None or driver is None:
            raise RuntimeError("needs chromium and chromedriver (Debian packages chromium, chromium-driver)")
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        for flag in (*FLAGS, f"--user-data-dir={os.path.join(folder, 'profile')}"):
            options.add_argument(flag)
        environment = {"PATH": "/usr/bin:/bin", "HOME": folder, "TMPDIR": folder, "LC_ALL": "C.UTF-8",
                       "TZ": "America/New_York"}
        self.driver = webdriver.Chrome(service=Service(driver, env=environment), options=options)
        self.look()

    def close(self):
        self.driver.quit()

    def look(self, width=1160, height=900, dark=False, still=True, scale=1):
        """The size of the window, and what its owner likes."""
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                                    {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False})
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if still else "no-preference"}]})

    def open(self, url):
        self.console(), self.requests()  # forget what was before
        self.driver.get(url)

    def find(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector):
        """What of it can be seen."""
        return [element for element in self.driver.find_elements(By.CSS_SELECTOR, selector) if element.is_displayed()]

    def text(self, selector):
        """As a person reads it; empty while it is not shown."""
        try:
            return " ".join(self.find(selector).text.split())
        except StaleElementReferenceException:
            return ""

    def wait_text(self, selector, *words, timeout=10.0):
        wait_until(lambda: all(word in self.text(selector) for word in words), f"{words} in {selector}", timeout,
                   seen=lambda: self.text("body")[:600], interval=0.05)

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def console(self):
        """What was complained of since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]

    def requests(self):
        """Every address that was asked for since the last call."""
        return [url for entry in self.driver.get_log("performance") for url in _requested(entry["message"])]

    def picture(self, path, selector=None):
        """The whole page, or one part of it, as a PNG."""
        self.run("return document.fonts.ready.then(() => 0)")
        box = self.run("""
            const box = document.querySelector(arguments[0] || 'body').getBoundingClientRect();
            return [box.x + scrollX, box.y + scrollY, box.width, box.height];""", selector)
        clip = dict(zip(("x", "y", "width", "height"), box), scale=1)
        data = self.driver.execute_cdp_cmd("Page.captureScreenshot", {
            "format": "png", "captureBeyondViewport": True, "clip": clip})
        with open(path, "wb") as file:
            file.write(base64.b64decode(data["data"]))


def _requested(message):
    event = json.loads(message)["message"]
    if event["method"] == "Network.requestWillBeSent":
        yield event["params"]["request"]["url"]
