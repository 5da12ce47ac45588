"""Sample names of flows and outcomes, as varied as those of real orgs."""

from __future__ import annotations

COMMON_OUTCOMES = ("TransferredToQueue", "Abandoned", "Self Service Completed")
"""Reported by nearly every flow, so that many flows share them."""

OUTCOMES = (
    "Rappel demandé",
    "転送済み",
    "Überlauf.Warteschleife",
    "billing_invoice_paid",
    "🎉 Upsell",
    "상담원 연결",
    "Café",
    "Cafe\u0301",
    "order.status.checked",
    "Отменено клиентом",
    "voicemail left",
    "Señal de fraude ⚠️",
    "العميل أنهى المكالمة",
    "留言 (夜间)",
    "PIN_verified",
    "transferred to queue",
    "Zażółć gęślą jaźń",
    "100% resolved; no agent",
    'said "no"',
    "back\\slash / slash",
    "👩\u200d👩\u200d👧 Familientarif",
    "आदेश की स्थिति",
    "Closed \u2013 after hours",
    "null",
)
"""A flow's further outcomes come from these; two of them differ in Unicode normalisation alone."""

CAMPAIGNS = ("Kampagne", "Special offer", "キャンペーン", "Sondage")
"""Outcomes with a date in their name: renamed for each campaign, or absent between two of them."""

MILESTONES = (
    "Caller identified",
    "Authenticated",
    "Menu reached",
    "Zahlung begonnen",
    "Payment confirmed",
    "Callback offered",
    "予約完了",
    "Ticket created",
    "Survey accepted",
)
"""Milestones of an org; a flow has up to four successive ones."""

LANGUAGES = ("en-us", "de-de", "es-us", "fr-ca", "ja-jp")
"""Languages in which a flow begins and ends."""

DEPARTMENTS = ("Support", "Billing", "Orders", "Réservations", "Technik", "営業", "Claims", "Loyalty")
CHANNELS = ("Inbound", "Callback", "Chat", "After hours", "VIP", "Survey")


def flow_name(number: int) -> str:
    """Return a flow's name by its number, from 0."""
    department = DEPARTMENTS[number % len(DEPARTMENTS)]
    channel = CHANNELS[number // len(DEPARTMENTS) % len(CHANNELS)]
    turn = number // (len(DEPARTMENTS) * len(CHANNELS))
    return f"{department} {channel}" + (f" {turn + 1}" if turn else "")
