"""Average precision by the rules of COCO (`coco`) and of Pascal VOC (`voc`)."""
